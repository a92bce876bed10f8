"""claims.csv and claims.md: the verdict on each claim of the paper, with what it rests on."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from l2dyn.claims.evidence import Evidence
from l2dyn.claims.judges import JUDGES
from l2dyn.claims.verdicts import INCONCLUSIVE, NOT_RUN, REPRODUCED, USUAL, Part, all_of
from l2dyn.config.scale import ScaleConfig
from l2dyn.errors import UserError
from l2dyn.files import shipped_folder
from l2dyn.specs.base import Spec
from l2dyn.tables.csv_files import write_csv
from l2dyn.tables.markdown import significant, table
from l2dyn.tables.searchable import write_searchable
from l2dyn.tables.units import units_in_words

COLUMNS = (
    "claim",  # C1 … C20
    "part",  # empty: the claim as a whole
    "verdict",
    "what",
    "estimate",
    "low",
    "high",
    "interval",  # what low and high are
    "wanted",
    "why",
    "seeds",
    "runs",
    "run_ids",
)


class PaperNumber(Spec):
    """A number that the main text prints, and what of ours stands beside it.

    part: how the names of the parts begin whose estimates they are (a regular expression). figure, number: where
    the claim is not judged at a scale, a number that is read off that figure; dimensionless: it has no units.
    """

    paper: str
    part: str = ""
    figure: str = ""
    number: str = ""
    dimensionless: bool = True


class ClaimSpec(Spec):
    """One entry of paper_results/claims.yaml; its header says what the keys mean."""

    id: str
    claim: str
    where: str
    figures: tuple[str, ...]
    judged_by: str
    criterion: dict[str, Any]
    paper: dict[str, Any]
    numbers: tuple[PaperNumber, ...] = ()
    scales: tuple[str, ...] = ()
    cannot: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    note: str = ""


def read_claims(path: Path | None = None) -> list[ClaimSpec]:
    """The claims of paper_results/claims.yaml.

    Raises:
        UserError: for a bad file, naming the entry and key.
    """
    path = path or shipped_folder() / "claims.yaml"
    try:
        entries = YAML(typ="safe").load(path)["claims"]
    except (OSError, YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__})") from None
    if not isinstance(entries, list):
        raise UserError(f"{path}: claims: a list is wanted")
    found = []
    for number, entry in enumerate(entries):
        try:
            found.append(ClaimSpec.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{path}: claims[{number}].{where}: {first['msg']}") from None
    if [claim.id for claim in found] != list(JUDGES):
        raise UserError(f"{path}: claims: {', '.join(JUDGES)} are wanted, in this order")
    return found


def verdict_in_words(claim: ClaimSpec, verdict: str, scale: str) -> str:
    """A verdict, with what the scale's plan is too small for, whatever its runs show."""
    never = claim.cannot.get(scale, ())
    if verdict == NOT_RUN or not never:
        return verdict
    what = "to decide" if len(never) > 1 else "to confirm" if never[0] == REPRODUCED else "to contradict"
    return f"{verdict} (this scale is too small {what})"


def judge(claims: list[ClaimSpec], evidence: Evidence) -> dict[str, list[Part]]:
    """The parts of every claim, by its id; a claim that names other scales is not run at this one."""
    found = {}
    for claim in claims:
        if claim.scales and evidence.scale not in claim.scales:
            found[claim.id] = [Part("", NOT_RUN, why=f"judged at the scales {', '.join(claim.scales)}")]
        else:
            found[claim.id] = JUDGES[claim.id](evidence, {**claim.paper, **claim.criterion})
    return found


def write_claims(claims: list[ClaimSpec], judged: dict[str, list[Part]], path: Path, parts_path: Path) -> None:
    """One row a claim, and one row for each of its parts beside it."""
    write_csv(path, COLUMNS, [_whole(claim.id, judged[claim.id]) for claim in claims])
    write_csv(parts_path, COLUMNS, [_row(claim.id, part) for claim in claims for part in judged[claim.id]])


def write_searchable_claims(scale: str, path: Path, parts_path: Path, page: Path) -> None:
    """A page to be searched of what write_claims wrote."""
    tables = []
    for caption, file in (("Claims", path), ("Their parts", parts_path)):
        head, *rows = csv.reader(io.StringIO(file.read_text(encoding="utf-8")))
        tables.append((caption, head, rows))
    write_searchable(page, f"The claims of the paper at the scale {scale}", tables)


def claims_page(claims: list[ClaimSpec], judged: dict[str, list[Part]], scale: str, config: ScaleConfig) -> str:
    """Markdown: a table of all claims, then each with its rule and parts, and the units of its experiments."""
    head = ("claim", "the paper says", "verdict", "estimate", "seeds", "figures")
    rows = []
    for claim in claims:
        parts = judged[claim.id]
        estimates = "; ".join(filter(None, map(with_interval, parts)))
        rows.append((claim.id, claim.claim, verdict_of(parts), estimates, _seeds(parts), ", ".join(claim.figures)))
    sections = [f"# Claims at the scale {scale}", table(head, rows)]
    for claim in claims:
        of_parts = [
            (p.name, p.verdict, p.what, with_interval(p), p.wanted, p.why, p.seeds or "", len(p.run_ids) or "")
            for p in judged[claim.id]
        ]
        columns = (
            "part",
            "verdict",
            "estimate of",
            "value [90 % interval, where nothing else is said]",
            "wanted",
            "remarks",
            "seeds",
            "runs",
        )
        sections.append(f"## {claim.id}: {verdict_of(judged[claim.id])}\n\n{claim.claim} ({claim.where})")
        sections.append(f"*Judged by.* {claim.judged_by}" + (f" *Note.* {claim.note}" if claim.note else ""))
        if scale in claim.cannot:
            never = " or ".join(claim.cannot[scale])
            sections.append(
                f"*At this scale* the plan (its λ, budgets and seeds) cannot lead to {never}, whatever its runs show."
            )
        names = (
            name for figure in claim.figures if figure in config.figures for name in config.figures[figure].experiments
        )
        units = units_in_words({name: config.experiments[name] for name in names})
        sections += [units, table(columns, of_parts)]
    return "\n\n".join(filter(None, sections)) + "\n"


def verdict_of(parts: list[Part]) -> str:
    """Of a claim: every part is needed, those among them whose runs are awaited."""
    verdict = all_of(part.verdict for part in parts)
    return INCONCLUSIVE if verdict == REPRODUCED and any(part.awaited for part in parts) else verdict


def _whole(claim: str, parts: list[Part]) -> list:
    """The row of a claim: the part that decides its verdict gives estimate and reason."""
    verdict = verdict_of(parts)
    deciding = next((part for part in parts if part.verdict == verdict), None) or next(p for p in parts if p.awaited)
    ids = tuple(dict.fromkeys(i for part in parts for i in part.run_ids))
    what = ": ".join(filter(None, (deciding.name, deciding.what)))
    return _row(claim, replace(deciding, name="", verdict=verdict, what=what, seeds=_seeds(parts), run_ids=ids))


def _row(claim: str, part: Part) -> list:
    ids = " ".join(part.run_ids)
    numbers = (float(number) for number in (part.estimate, part.low, part.high))
    return [
        claim,
        part.name,
        part.verdict,
        part.what,
        *numbers,
        part.interval if part.low < part.high else "",
        part.wanted,
        part.why,
        part.seeds,
        len(part.run_ids),
        ids,
    ]


def _seeds(parts: list[Part]) -> int:
    return max((part.seeds for part in parts), default=0)


def with_interval(part) -> str:
    """The estimate of a Part, or of a row of claim_parts.csv, with its interval, of which it says what is unusual."""
    if part.estimate != part.estimate:
        return ""
    if not part.low < part.high:
        return significant(part.estimate)
    unusual = "" if part.interval == USUAL else f" ({part.interval})"
    return f"{significant(part.estimate)} [{significant(part.low)}, {significant(part.high)}]{unusual}"

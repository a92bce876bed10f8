"""The configuration's JSON schema, for editors and for readers; `python -m l2dyn.runs.schema` writes it anew."""

import json
from pathlib import Path

from l2dyn.runs.config import ScaleConfig
from l2dyn.runs.files import ROOT, write_atomically

PATH = ROOT / "workflow" / "schemas" / "scale.schema.json"


def schema_text() -> str:
    """The schema of config/<scale>.yaml as it is kept in workflow/schemas/."""
    return json.dumps(ScaleConfig.model_json_schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_atomically(Path(PATH), schema_text().encode())

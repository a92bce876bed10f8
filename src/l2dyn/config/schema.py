"""The configuration's JSON schema, for editors; `make install` and `python -m l2dyn.config.schema` write it."""

import json

from l2dyn.config.scale import ScaleConfig
from l2dyn.files import ROOT, write_atomically

PATH = ROOT / "workflow" / "schemas" / "scale.schema.json"


def schema_text() -> str:
    """The schema of config/<scale>.yaml as it is written to workflow/schemas/."""
    schema = ScaleConfig.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "figures"]  # they stand in config/figures.yaml
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_atomically(PATH, schema_text().encode())

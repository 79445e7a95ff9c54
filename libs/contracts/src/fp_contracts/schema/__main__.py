"""`python -m fp_contracts.schema --check|--write`: compare or write libs/contracts/schema/*.json. Exit 1 on drift."""

import argparse
import json
from pathlib import Path

from fp_contracts.schema import schemas

FOLDER = Path(__file__).parents[3] / "schema"


def main() -> int:
    """Dump the schemas, or say which files differ from them."""
    parser = argparse.ArgumentParser(prog="python -m fp_contracts.schema", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="exit 1 when a file is missing, stale or foreign")
    mode.add_argument("--write", action="store_true", help="write the files, remove foreign ones")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are")
    options = parser.parse_args()
    wanted = {f"{name}.json": json.dumps(schema, indent=1, sort_keys=True) + "\n" for name, schema in schemas().items()}
    there = {path.name: path.read_text() for path in options.folder.glob("*.json")}
    drifted = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if options.write:
        options.folder.mkdir(parents=True, exist_ok=True)
        for name in drifted:
            path = options.folder / name
            path.write_text(wanted[name]) if name in wanted else path.unlink()
        return 0
    if drifted:
        print(f"schema drift: {', '.join(drifted)}. Fix: python -m fp_contracts.schema --write, and review the diff")
    return 1 if drifted else 0


if __name__ == "__main__":
    raise SystemExit(main())

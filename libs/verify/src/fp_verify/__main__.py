"""`python -m fp_verify BUNDLE [-o json] [--candidate KEY]`: exit 0 PASS, 1 FAIL, 2 not a bundle."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from fp_verify.bundle import BundleError, load, verify_bundle


def main() -> int:
    """Verify one bundle and print what was found."""
    parser = argparse.ArgumentParser(prog="fp-verify", description="Recompute a run's verdict from its evidence.")
    parser.add_argument("bundle", type=Path, help="folder or .tar.gz")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("--candidate", metavar="KEY", help="verify the verdict under KEY although it is not published")
    args = parser.parse_args()
    try:
        result = verify_bundle(load(args.bundle), args.candidate)
    except BundleError as error:
        print(f"bundle: {error}. Fix: give the folder or archive that `fp evidence export` wrote", file=sys.stderr)
        return 2
    if args.output == "json":
        print(json.dumps(asdict(result), ensure_ascii=False))
    else:
        print(f"{result.result}: verdict {result.verdict}, spine {result.spine_verdict}, {result.objects} objects")
        for mismatch in result.mismatches:
            print(f"  {mismatch.blocker}  {mismatch.key}: {mismatch.why}")
    return 0 if result.result == "PASS" else 1


if __name__ == "__main__":
    sys.exit(main())

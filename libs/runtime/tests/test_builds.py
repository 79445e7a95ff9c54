"""A build digest covers everything of ours that a service runs, the jobs that it starts included."""

import pytest

from fp_runtime import builds


@pytest.mark.parametrize(
    ("service", "package"),
    [
        ("rtdl", "fp_rtdl"), ("archive", "fp_rtdl"), ("rtdl", "fp_features"), ("verdict", "fp_verify"),
        ("df", "fp_models"), ("ofs_trigger", "fp_ofs"), ("ofs_trigger", "fp_mf"), ("ofs_trigger", "fp_models"),
    ],
)  # fmt: skip
def test_an_edit_of_what_a_service_runs_is_another_build(
    monkeypatch: pytest.MonkeyPatch, service: str, package: str
) -> None:
    before, real = builds.build_digest(service), builds.package_files

    def edited(name: str) -> list[tuple[str, bytes]]:
        return [(path, body + b"#" if name == package else body) for path, body in real(name)]

    monkeypatch.setattr(builds, "package_files", edited)
    assert builds.build_digest(service) != before


def test_an_edit_elsewhere_is_the_same_build(monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = builds.build_digest("rtdl"), builds.package_files
    monkeypatch.setattr(
        builds, "package_files", lambda name: real(name) if name not in ("fp_mf", "fp_df") else [("x", b"edited")]
    )
    assert builds.build_digest("rtdl") == before

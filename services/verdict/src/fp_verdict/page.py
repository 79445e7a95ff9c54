"""The run page: one self-contained HTML file. Rendering is pure: a report in, text out."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from fp_contracts.pins import MONTHLY_LIMIT_MICROUSD
from fp_verdict.report import RunReport


def render(report: RunReport, base: str = "../../../../", refresh_s: int | None = None) -> str:
    """The page. `base` leads from it to the root of the evidence keys; `refresh_s` = reload while the run is open."""
    return _environment().get_template("run.html").render(
        report=report, base=base, refresh_s=None if report.over else refresh_s, limit=MONTHLY_LIMIT_MICROUSD
    )  # fmt: skip


def page_key(run: str) -> str:
    """Evidence key of a run's page."""
    return f"evidence/runs/{run}/page/run.html"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fp_verdict"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(usd=usd, seconds=seconds, words=words)
    return environment


def usd(microusd: int) -> str:
    """Micro-USD for people: four decimals below a dollar, two above."""
    return f"${microusd / 1_000_000:.4f}" if microusd < 1_000_000 else f"${microusd / 1_000_000:,.2f}"


def seconds(us: int) -> str:
    """Microseconds as seconds for people."""
    return f"{us / 1_000_000:.1f} s"


def words(name: str) -> str:
    """An identifier as words."""
    return name.replace("_", " ")

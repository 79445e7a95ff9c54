"""The service set of a run: which instances must be alive for P2, and which process groups exist."""

from collections.abc import Mapping

REQUIRED = ("sr", "wsp", "ig", "rtdl", "archive", "df", "actions", "cm_ls", "verdict", "ofs_trigger")
SINGLETONS = ("sr", "wsp", "verdict", "ofs_trigger", "archive", "actions")


def instances(members: Mapping[str, int], writers: tuple[str, ...]) -> tuple[str, ...]:
    """Names of all instances of a run, e.g. rtdl-0, rtdl-1; `writers` are the ig instances."""
    named: list[str] = []
    for service in REQUIRED:
        if service == "ig":
            named.extend(writers)
        else:
            named.extend(f"{service}-{ordinal}" for ordinal in range(members.get(service, 1)))
    return tuple(named)


def ordinal_of(instance: str) -> int:
    """The ordinal of an instance name; ValueError when it has none."""
    return int(instance.rsplit("-", 1)[1])


def owned_partitions(ordinal: int, members: int, partitions: int) -> tuple[int, ...]:
    """Partitions that a member owns: p with p % members == ordinal."""
    return tuple(part for part in range(partitions) if part % members == ordinal)

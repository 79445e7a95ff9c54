"""The lock of the broker's class path."""

import pytest

from fp_operator.stack.kafka_jars import KAFKA_VERSION, Jar, lock_text, parse_lock

A, B = "a" * 64, "b" * 64


def test_the_committed_lock_holds_the_broker_its_dependencies_and_the_log_binding() -> None:
    jars = parse_lock(lock_text())
    names = [jar.file_name for jar in jars]
    assert len(jars) == 45
    assert f"kafka_2.13-{KAFKA_VERSION}.jar" in names
    assert "slf4j-simple-1.7.36.jar" in names
    assert names == sorted(names)
    assert parse_lock("\n".join(jar.line() for jar in reversed(jars))) == jars


def test_comments_and_empty_lines_are_skipped() -> None:
    assert parse_lock(f"# head\n\n g.h:a:1.0 {A}  # why\n") == (Jar("g.h", "a", "1.0", A),)


def test_a_jar_knows_its_place_in_a_repository() -> None:
    assert Jar("org.x.y", "z_2.13", "4.4.0", A).url("r") == "r/org/x/y/z_2.13/4.4.0/z_2.13-4.4.0.jar"


@pytest.mark.parametrize(
    "line", ["g:a:1", f"g:a {A}", f"g:a:1:x {A}", f"g::1 {A}", f"g:a:1 {A[:-1]}", f"g:a:1 {A[:-1]}G", "rubbish"]
)
def test_a_damaged_line_is_named_by_its_number(line: str) -> None:
    with pytest.raises(ValueError, match=r"kafka-jars\.lock line 2: "):
        parse_lock(f"g:b:1 {A}\n{line}\n")


def test_two_jars_of_one_file_name_are_refused() -> None:
    with pytest.raises(ValueError, match="share a file name"):
        parse_lock(f"g:a:1 {A}\nh:a:1 {B}\n")

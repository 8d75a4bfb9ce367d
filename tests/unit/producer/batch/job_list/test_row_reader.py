"""Lines of job lists: whatever a spreadsheet or a script writes is read, and errors have the number of their line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omnifleet import InvalidJob
from omnifleet.batch.job_list.row_reader import DELIMITERS, LONGEST_LINE, read_rows

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1, max_size=20)
VALUES = CELLS.filter(str.strip)
IN_TMP_PATH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def rows(path: Path, data: bytes | str) -> list[tuple[int, Any]]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return [(row.number, row.values) for row in read_rows(path)]


def problems(found: list[tuple[int, Any]]) -> list[tuple[int, str]]:
    return [(number, values.problem) for number, values in found if isinstance(values, InvalidJob)]


class TestCSV:
    @given(
        table=st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=8),
        delimiter=st.sampled_from(DELIMITERS),
        bom=st.booleans(),
        line_end=st.sampled_from(["\n", "\r\n"]),
    )
    @IN_TMP_PATH
    def test_what_a_csv_writer_writes_is_read_back(
        self, tmp_path: Path, table: list[tuple[str, str, str]], delimiter: str, bom: bool, line_end: str
    ) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end)
        writer.writerows([("audio", "the sound", "größe"), *table])

        read = rows(tmp_path / "jobs.csv", (b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode())

        assert [tuple(values.values()) for _, values in read] == table
        assert {tuple(values) for _, values in read} <= {("audio", "the sound", "größe")}

    @given(data=st.binary(max_size=200))
    @IN_TMP_PATH
    def test_any_bytes_are_rows_or_errors_with_lines(self, tmp_path: Path, data: bytes) -> None:
        lines = data.count(b"\n") + 1

        assert all(1 <= number <= lines for number, _ in rows(tmp_path / "jobs.csv", data))

    def test_blank_lines_and_empty_cells_are_passed_over(self, tmp_path: Path) -> None:
        assert rows(tmp_path / "jobs.csv", "\naudio,sound\n\na.wav,\n , \nb.wav,rain\n") == [
            (4, {"audio": "a.wav"}),
            (6, {"audio": "b.wav", "sound": "rain"}),
        ]

    def test_a_row_over_several_lines_has_the_number_of_its_first(self, tmp_path: Path) -> None:
        found = rows(tmp_path / "jobs.csv", 'audio,desc\na.wav,"two\nlines"\nb.wav,one\n')

        assert [number for number, _ in found] == [2, 4]

    def test_a_row_of_another_length_is_an_error_and_the_next_one_is_read(self, tmp_path: Path) -> None:
        found = rows(tmp_path / "jobs.csv", "audio,sound\na.wav\nb.wav,rain,more\nc.wav,wind\n")

        assert problems(found) == [
            (2, "it has 1 cells, and the header has 2"),
            (3, "it has 3 cells, and the header has 2"),
        ]
        assert found[2] == (4, {"audio": "c.wav", "sound": "wind"})

    @pytest.mark.parametrize(
        ("header", "problem"),
        [("audio,audio", "the column 'audio' is there twice"), ("audio,,sound", "a column has no name")],
    )
    def test_a_header_that_will_not_do_is_the_only_error(self, tmp_path: Path, header: str, problem: str) -> None:
        assert problems(rows(tmp_path / "jobs.csv", f"{header}\na,b\nc,d\n")) == [(1, problem)]

    @pytest.mark.parametrize("data", ["", "\n\n", "audio,sound\n"])
    def test_a_file_without_rows_has_none(self, tmp_path: Path, data: str) -> None:
        assert rows(tmp_path / "jobs.csv", data) == []


class TestJSONLines:
    @given(table=st.lists(st.dictionaries(CELLS, st.none() | st.integers() | CELLS), max_size=8), bom=st.booleans())
    @IN_TMP_PATH
    def test_what_json_writes_is_read_back(self, tmp_path: Path, table: list[dict[str, Any]], bom: bool) -> None:
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in table)

        read = rows(tmp_path / "jobs.jsonl", ("\ufeff" if bom else "") + text)

        assert read == list(enumerate(table, 1))

    @given(data=st.binary(max_size=200))
    @IN_TMP_PATH
    def test_any_bytes_are_rows_or_errors_with_lines(self, tmp_path: Path, data: bytes) -> None:
        lines = data.count(b"\n") + 1

        assert all(1 <= number <= lines for number, _ in rows(tmp_path / "jobs.jsonl", data))

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("{", "it is no JSON: Expecting property name"),
            ("[" * 100_000, "it is no JSON"),
            ("[1]", "it is no object but list"),
            (b"\xff", "it is not UTF-8"),
            (b"x" * (LONGEST_LINE + 9), "it is longer than"),
        ],
    )
    def test_a_bad_line_is_an_error_and_the_next_one_is_read(
        self, tmp_path: Path, line: str | bytes, problem: str
    ) -> None:
        data = b'{"a": 1}\n\n%s\n{"b": 2}\n' % (line if isinstance(line, bytes) else line.encode())

        found = rows(tmp_path / "jobs.jsonl", data)

        assert [number for number, _ in found] == [1, 3, 4]
        assert found[1][1].problem.startswith(problem)
        assert found[2] == (4, {"b": 2})


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidJob, match="no job list"):
        rows(tmp_path / "jobs.txt", "")

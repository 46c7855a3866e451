"""How the application writes the live tables: ``live_writer``."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from projection_rebuild.spec.fields import Section


class LiveWriter(StrEnum):
    """How the application writes blue; the cutover follows from it."""

    TRANSACTIONAL = "transactional"
    CHECKPOINTED = "checkpointed"
    DETACHED = "detached"


class ConsumerTable(Section):
    """The table in which asynchronous consumers store their positions; the swap exchanges it with the read models.

    :param table: the table, beside the read models; it has rows of the rebuilt projectors only
    :param name_column: the column with the name of the consumer
    :param position_column: the column with its position
    :param names: the name of each projector in ``name_column``
    """

    table: str
    name_column: str
    position_column: str
    names: dict[str, str] = Field(min_length=1)


class LiveWriterSection(Section):
    """The contract between the application and the engine: how the application writes blue.

    * ``transactional``: the append transaction also writes blue.
    * ``checkpointed``: a consumer writes blue together with its position in ``checkpoint.table``.
    * ``detached``: queue jobs or after-commit handlers write blue; ``jobs_left`` or ``drain_check`` shows their progress.

    For a contract without other keys a text is enough: ``live_writer: transactional``.

    :param contract: how the application writes blue
    :param checkpoint: where the consumer stores its position; only for ``checkpointed``
    :param drain_check: SQL on the read models' database that returns 0 when no job has work left; only for ``detached``
    :param jobs_left: SQL on the read models' database that returns the positions of the events that jobs have yet to
        project; only for ``detached``, instead of ``drain_check``
    """

    contract: LiveWriter
    checkpoint: ConsumerTable | None = None
    drain_check: str | None = None
    jobs_left: str | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if (self.contract is LiveWriter.CHECKPOINTED) != (self.checkpoint is not None):
            raise ValueError("`checkpoint` (table, name_column, position_column, names) belongs to the contract checkpointed")
        given = (self.drain_check is not None) + (self.jobs_left is not None)
        if given != (self.contract is LiveWriter.DETACHED):
            raise ValueError(
                "either `jobs_left` (SQL that gives the positions of the events that have a job left) or `drain_check` (SQL that gives 0 when "
                "nothing is left to do) belongs to the contract detached"
            )
        return self


def parse_live_writer(value: object) -> object:
    """The section for a contract that is written as a text alone."""
    return {"contract": value} if isinstance(value, str) else value

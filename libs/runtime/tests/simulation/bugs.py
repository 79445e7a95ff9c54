"""The planted bugs: each breaks one rule of the dataflow and must be noticed."""

from enum import StrEnum


class Bug(StrEnum):
    """One broken rule; the first sixteen are those that the design names (dataflow.md §9)."""

    ORDER_BY_TS = "order by ts_utc instead of the lane's running maximum"
    DEADLINE_BY_FRONTIER = "deadlines fire after the batch, by the frontier, not in the order"
    FRONTIER_INCLUDES_TIES = "records at the bound are released although a tie may come"
    WATERMARK_FROM_CLOCK = "rtdl sends its merge clock instead of its output frontier"
    FRONTIER_OVER_GAP = "a frontier counts although sequences before it are missing"
    FRONTIER_ON_REFUSED_LINE = "the frontier is put on the last line, admitted or not"
    WATERMARK_TAKES_SEQUENCE = "a watermark takes a sequence number"
    SEQUENCE_BEFORE_CONFLICT_CHECK = "sequences are drawn before the conflict check"
    LANE_GOES_ON_AFTER_202 = "the lane takes 202 for an answer"
    CLASS_BEFORE_PUBLISH = "classes are given back before the records are published"
    DUPLICATE_TEST_WITHOUT_GAPS = "every sequence at or below the last one counts as a duplicate"
    PROGRESS_STORES_READ_OFFSET = "df resumes from what it read, not from what it released"
    JOINS_NOT_IN_CHECKPOINT = "pending joins are missing from rtdl's checkpoint"
    CLAIM_WITHOUT_OWNER = "a zombie writer may still claim"
    CLOSING_PAST_WINDOW_END = "the closing watermark lies past the end of the window"
    OUTCOME_BEFORE_TRIGGER_DROPPED = "an outcome that comes before its case is dropped"

    HELD_LINE_FORGOTTEN = "the lane's frontier forgets a late line that is held back"
    CURSOR_CAPPED_AT_BOUND = "a checkpoint forgets frontiers above the merge's bound"
    CHECKPOINT_BEFORE_PUBLISH = "rtdl checkpoints before its records are published"
    CHECKPOINT_WITHOUT_OWNER = "a zombie of rtdl may still checkpoint"
    PROGRESS_WITHOUT_COMPARE = "df commits without owner row and compare-and-set"
    STATE_NOT_REFED = "df resumes from its progress with the state of an older checkpoint"
    UNKNOWN_DROPPED = "an attempt that is not found on the topic is given up"
    LABEL_FRONTIER_WITHOUT_DELAY = "a label takes its delay but its lane's frontier promises more"
    GAPS_NOT_KEPT = "a consumer keeps its last sequence and forgets the gaps below it"

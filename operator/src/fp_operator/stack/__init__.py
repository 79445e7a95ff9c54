"""The embedded stack: real Kafka, PostgreSQL and Valkey from packages, supervised, under one state folder."""

from fp_operator.stack.addresses import StackAddresses, default_state_dir
from fp_operator.stack.borrowing import borrow, giving_back
from fp_operator.stack.program import Program
from fp_operator.stack.server import Away
from fp_operator.stack.stack import ProgramStatus, down, held, keep_up, role_password, status, up
from fp_operator.stack.start import OnStep
from fp_operator.stack.supervisor import ProgramState, Supervisor, SupervisorDown

__all__ = [
    "Away",
    "OnStep",
    "Program",
    "ProgramState",
    "ProgramStatus",
    "StackAddresses",
    "Supervisor",
    "SupervisorDown",
    "borrow",
    "default_state_dir",
    "down",
    "giving_back",
    "held",
    "keep_up",
    "role_password",
    "status",
    "up",
]

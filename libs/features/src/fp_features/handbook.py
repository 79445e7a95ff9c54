"""The 14 features of the fraud-detection handbook as columns of core.v1 (Le Borgne et al., chapter 3)."""

# The handbook's amounts are in major units (dollars), ours in minor units (cents).
MINOR_PER_MAJOR = 100.0

# Handbook column -> (our column, divisor).
HANDBOOK_COLUMNS: dict[str, tuple[str, float]] = {
    "TX_DURING_WEEKEND": ("weekend", 1.0),
    "TX_DURING_NIGHT": ("night", 1.0),
    **{f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW": (f"account_count_{days}d", 1.0) for days in (1, 7, 30)},
    **{
        f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW": (f"account_mean_amount_{days}d", MINOR_PER_MAJOR)
        for days in (1, 7, 30)
    },
    **{f"TERMINAL_ID_NB_TX_{days}DAY_WINDOW": (f"merchant_count_{days}d", 1.0) for days in (1, 7, 30)},
    **{f"TERMINAL_ID_RISK_{days}DAY_WINDOW": (f"merchant_risk_{days}d", 1.0) for days in (1, 7, 30)},
}


def to_minor(amount: float) -> int:
    """A published decimal amount to minor units: the nearest one, since some amounts have float tails."""
    return round(amount * MINOR_PER_MAJOR)

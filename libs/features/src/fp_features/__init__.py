"""Feature code shared bit for bit by rtdl, df and the dataset jobs; pure."""

"""The fraud-detection handbook's benchmark from features that the stream computed and labels that came late."""

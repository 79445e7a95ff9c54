"""Learning triggers (ofs_trigger): OFS, MF and MPR corridor."""

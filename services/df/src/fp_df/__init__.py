"""Decision fabric (df): decides, audits and acts."""

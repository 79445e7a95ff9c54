"""Runtime of the mesh: event-time merge, buses, stores, gates, telemetry."""

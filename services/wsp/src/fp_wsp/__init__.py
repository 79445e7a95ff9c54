"""World stream producer (wsp): replays a sealed world into the gateway."""

"""What operators run beside a fleet: rules, dashboards, a compose file, and what makes them."""

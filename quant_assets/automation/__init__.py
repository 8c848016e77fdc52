"""When the graph runs: jobs of the trading day, their schedules and sensors."""

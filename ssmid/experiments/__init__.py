"""The papers' experiments, from seed to table: tasks, a training harness, and what is measured with them."""

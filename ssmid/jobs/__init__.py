"""Jobs that take minutes: whole models distilled chunk by chunk, so that they can be stopped anywhere and shared by several processes."""

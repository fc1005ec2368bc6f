"""Banks of long filters to small recurrences, thousands at once, each with a certificate of how near the best possible it is."""

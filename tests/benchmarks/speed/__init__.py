"""What ``bench_speed`` is made of: the data, the contenders, each row's measurement, and the table."""

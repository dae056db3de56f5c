-- What each vendor has sold for, by month (UTC).
CREATE TABLE vendor_billing (
    vendor_id uuid NOT NULL,
    year int NOT NULL,
    month int NOT NULL,
    balance numeric NOT NULL,
    PRIMARY KEY (vendor_id, year, month)
);

-- How far each projection has come, changed in the transaction that changes its totals.
CREATE TABLE projection_offset (
    projection text NOT NULL,
    topic text NOT NULL,
    partition int NOT NULL,
    log_epoch int NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (projection, topic, partition, log_epoch)
);

-- Which log those offsets belong to.
CREATE TABLE log_epoch (
    topic text PRIMARY KEY,
    epoch int NOT NULL,
    cluster_id text NOT NULL,
    topic_id text NOT NULL,
    partitions int NOT NULL
);

-- Trainings after the search are taken as leases, as evaluations are, so that several workers share them.
ALTER TABLE measurements RENAME TO measurements_without_leases;
CREATE TABLE measurements (
    protocol    TEXT NOT NULL,    -- how it is trained
    graph       TEXT NOT NULL,    -- as in candidates
    seed        BIGINT NOT NULL,
    network     TEXT NOT NULL,
    state       TEXT NOT NULL,    -- leased or done
    token       TEXT NOT NULL,    -- of the lease; a late result with another one is refused
    worker      TEXT NOT NULL,
    lease_until DOUBLE PRECISION NOT NULL,
    attempts    BIGINT NOT NULL,
    score       DOUBLE PRECISION,
    seconds     DOUBLE PRECISION,
    measured_at DOUBLE PRECISION,
    PRIMARY KEY (protocol, graph, seed, network)
);
INSERT INTO measurements
    SELECT protocol, graph, seed, network, 'done', '', '', 0.0, 1, score, seconds, measured_at
    FROM measurements_without_leases;
DROP TABLE measurements_without_leases;

-- Trainings after the search: the best layers again, longer, in larger networks.
CREATE TABLE measurements (
    protocol    TEXT NOT NULL,    -- how it was trained
    graph       TEXT NOT NULL,    -- as in candidates
    seed        BIGINT NOT NULL,
    network     TEXT NOT NULL,
    score       DOUBLE PRECISION NOT NULL,
    seconds     DOUBLE PRECISION NOT NULL,
    measured_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (protocol, graph, seed, network)
);

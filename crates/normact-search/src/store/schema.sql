CREATE TABLE search (
    fingerprint TEXT NOT NULL,
    config      TEXT NOT NULL,
    begun_at    DOUBLE PRECISION NOT NULL
);

-- A strategy with a seed and its budget of different layers.
CREATE TABLE runs (
    id       BIGINT PRIMARY KEY,
    strategy TEXT NOT NULL,
    seed     BIGINT NOT NULL,
    budget   BIGINT NOT NULL,
    proposed BIGINT NOT NULL,  -- candidates so far
    spent    BIGINT NOT NULL,  -- different ones among them that were judged
    finished BIGINT NOT NULL   -- those whose scores are known
);

-- Every layer that a run proposed, in order.
CREATE TABLE candidates (
    run         BIGINT NOT NULL REFERENCES runs (id),
    number      BIGINT NOT NULL,
    origin      TEXT NOT NULL,    -- fresh, child or fixed
    parent      BIGINT,           -- the number of the candidate it is a child of
    mutations   BIGINT NOT NULL,
    graph       TEXT NOT NULL,    -- the genotype, or the name of a fixed layer
    key         TEXT NOT NULL,    -- the canonical key
    protocol    TEXT NOT NULL,
    duplicate   BIGINT NOT NULL,  -- 1 where the run had a layer with this key before
    state       TEXT NOT NULL,    -- waiting, scored or rejected
    scores      TEXT,
    reason      TEXT,
    detail      TEXT,
    seconds     DOUBLE PRECISION, -- what judging its layer cost, in whichever run; 0 for a duplicate
    worker      TEXT NOT NULL,
    proposed_at DOUBLE PRECISION NOT NULL,
    finished_at DOUBLE PRECISION,
    finish      BIGINT,           -- its place in the order in which verdicts came
    PRIMARY KEY (run, number)
);
CREATE INDEX candidates_by_key ON candidates (key, protocol, state);
CREATE INDEX candidates_of_run_by_key ON candidates (run, key);
CREATE UNIQUE INDEX candidates_by_finish ON candidates (run, finish);

-- The one evaluation of each key.
CREATE TABLE evaluations (
    key         TEXT NOT NULL,
    protocol    TEXT NOT NULL,
    graph       TEXT NOT NULL,
    seed        BIGINT NOT NULL,
    state       TEXT NOT NULL,    -- leased or done
    token       TEXT NOT NULL,    -- of the lease; a late result with another one is refused
    worker      TEXT NOT NULL,
    lease_until DOUBLE PRECISION NOT NULL,
    attempts    BIGINT NOT NULL,
    scores      TEXT,
    reason      TEXT,
    detail      TEXT,
    seconds     DOUBLE PRECISION,
    PRIMARY KEY (key, protocol)
);
CREATE INDEX evaluations_by_lease ON evaluations (state, lease_until);

-- Processes that take part.
CREATE TABLE workers (
    id        TEXT PRIMARY KEY,
    host      TEXT NOT NULL,
    process   BIGINT NOT NULL,
    seen_at   DOUBLE PRECISION NOT NULL
);

-- What belongs to the deployment and to no tenant, hence without row-level security.

-- A server process, alive until the time it last promised. A node that is not here is dead.
CREATE TABLE nodes (
  id          uuid PRIMARY KEY,
  alive_until timestamptz NOT NULL
);
CREATE INDEX nodes_alive_until_idx ON nodes (alive_until);
GRANT SELECT, INSERT, UPDATE, DELETE ON nodes TO hubbub_writer;

-- The log that sequence numbers belong to. A restore from backup must change the epoch, so that
-- clients drop numbers which the restored log does not have.
CREATE TABLE deployment (
  one   boolean PRIMARY KEY DEFAULT true CHECK (one),
  epoch uuid NOT NULL
);
INSERT INTO deployment (epoch) VALUES (gen_random_uuid());
GRANT SELECT ON deployment TO hubbub_app, hubbub_writer;

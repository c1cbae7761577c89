ALTER TABLE messages DROP COLUMN client_id_spelling;

-- What jsonb cannot hold is given up: the message matters more than what was sent along with it.
CREATE FUNCTION pg_temp.jsonb_or_null(sent json) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
  RETURN sent::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded OR statement_too_complex THEN
  RETURN NULL;
END $$;
ALTER TABLE messages DROP CONSTRAINT messages_metadata_check;
ALTER TABLE messages ALTER COLUMN metadata TYPE jsonb USING pg_temp.jsonb_or_null(metadata);
ALTER TABLE messages ADD CONSTRAINT messages_metadata_check CHECK (jsonb_typeof(metadata) = 'object');

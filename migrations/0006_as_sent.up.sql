-- What a client sends is read back as it wrote it. jsonb gives numbers back as other digits, orders keys and
-- forgets repeated ones; json keeps the text.
ALTER TABLE messages DROP CONSTRAINT messages_metadata_check;
ALTER TABLE messages ALTER COLUMN metadata TYPE json USING metadata::text::json;
ALTER TABLE messages ADD CONSTRAINT messages_metadata_check CHECK (json_typeof(metadata) = 'object');

-- How the writer of a message wrote its id (case and form, 0: lower case with hyphens).
ALTER TABLE messages ADD COLUMN client_id_spelling int8 NOT NULL DEFAULT 0;
GRANT SELECT (client_id_spelling) ON messages TO hubbub_writer;

ALTER TABLE sessions DROP COLUMN summary;

ALTER TABLE replies NO FORCE ROW LEVEL SECURITY;
UPDATE replies SET fence = claim WHERE fence <> claim;
ALTER TABLE replies FORCE ROW LEVEL SECURITY;
GRANT UPDATE (fence) ON replies TO hubbub_writer;
ALTER TABLE replies DROP COLUMN claim;

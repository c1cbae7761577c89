DROP FUNCTION create_message_partitions(int);
DROP FUNCTION uuid7_floor(timestamptz);
DROP TABLE replies;
DROP TABLE messages;
DROP TABLE sessions;

DROP FUNCTION lock_attempts();
ALTER TABLE messages DROP COLUMN cached_input_tokens;
ALTER TABLE replies DROP COLUMN reserved;
DROP FUNCTION cost_of(prices, int8, int8, int8);
DROP FUNCTION price_at(text, text, timestamptz);
DROP TABLE spending;
DROP TABLE budgets;
DROP TABLE attempts;
DROP TABLE prices;

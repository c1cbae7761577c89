-- A tenant's share of the models, beside those of other tenants.

ALTER TABLE tenants ADD COLUMN weight int4 NOT NULL DEFAULT 1
  CONSTRAINT tenants_weight_check CHECK (weight BETWEEN 1 AND 1000);

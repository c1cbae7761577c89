DROP TABLE deployment;
DROP TABLE nodes;

-- Layout 2 adds to layout 1; `postgres-1.sql` explains the numbers.

UPDATE relay.layout SET version = 2;

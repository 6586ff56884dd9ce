-- Layout 2 adds to layout 1; `sqlite-1.sql` explains the numbers.

-- The ids that a channel has had. Those with the same `first` are one channel's, oldest first by
-- `place`; an id that Slack never changed is not here.
CREATE TABLE chains (
    app TEXT NOT NULL,
    channel TEXT NOT NULL,
    first TEXT NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (app, channel)
) STRICT, WITHOUT ROWID;

-- Changes that were heard of before: `written` is an id then, all in capitals, and not a name.
WITH changed AS (
    SELECT app, id, written AS channel, 0 AS is_newest FROM channel_ids
    WHERE length(written) >= 7 AND written GLOB '[CDG]*' AND written NOT GLOB '*[^A-Z0-9]*'
        AND written <> id
    UNION
    SELECT app, id, id, 1 FROM channel_ids
    WHERE length(written) >= 7 AND written GLOB '[CDG]*' AND written NOT GLOB '*[^A-Z0-9]*'
        AND written <> id)
INSERT OR IGNORE INTO chains (app, channel, first, place)
SELECT app, channel, first_value(channel) OVER ids, row_number() OVER ids - 1 FROM changed
WINDOW ids AS (PARTITION BY app, id ORDER BY is_newest, channel);

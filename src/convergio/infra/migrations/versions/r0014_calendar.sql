-- Whether the periods of a subscription are the calendar's own. One that began within a period
-- showed it by an anchor before its start; one that began with the period did not, and lost the
-- calendar where a change opened new periods.
ALTER TABLE subscription ADD COLUMN by_calendar boolean NOT NULL DEFAULT false;
UPDATE subscription SET by_calendar = true WHERE anchor_at < started_at;

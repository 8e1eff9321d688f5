-- The mode that fanwire.installing names is the one from here on; nothing installed is as good as
-- mode notify. Who reads in another one looks again.
DO $fanwire$
DECLARE
    installed text := (SELECT mode FROM fanwire.installation);
BEGIN
    IF coalesce(installed, 'notify') <> current_setting('fanwire.installing') THEN
        PERFORM pg_notify('fanwire', 'installed'),
                pg_logical_emit_message(true, 'fanwire.installed', '');
    END IF;
END
$fanwire$;

INSERT INTO fanwire.installation (version, mode, slot, installed_by)
VALUES (1, current_setting('fanwire.installing'), NULL, current_user)
ON CONFLICT (singleton) DO UPDATE
SET version = excluded.version, mode = excluded.mode, slot = excluded.slot,
    installed_by = excluded.installed_by, installed_at = now(),
    since = CASE WHEN installation.mode = excluded.mode THEN installation.since ELSE txid_current() END;

RESET fanwire.installing;

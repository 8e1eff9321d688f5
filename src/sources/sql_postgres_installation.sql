-- What of fanwire is installed, in any mode.
CREATE SCHEMA IF NOT EXISTS fanwire;
COMMENT ON SCHEMA fanwire IS 'Internals of fanwire; use public.fanwire_publish() and public.fanwire_status()';
GRANT USAGE ON SCHEMA fanwire TO PUBLIC;

CREATE TABLE IF NOT EXISTS fanwire.installation (
    singleton    boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version      integer NOT NULL,
    mode         text NOT NULL,
    slot         text,
    installed_by text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE fanwire.installation IS 'What of fanwire is installed in this database; one row';
GRANT SELECT ON fanwire.installation TO PUBLIC;

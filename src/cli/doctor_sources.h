/* The doctor's part for each kind of source. */
#ifndef CLI_DOCTOR_SOURCES_H
#define CLI_DOCTOR_SOURCES_H

#include "doctor_report.h"

struct fw_error;

/* Each fills the report. Returns 0, or -EINVAL or -ENOMEM with text for a bad URL. */

/* drop_slot: the name of a slot to drop instead of looking at everything, or NULL. */
int doctor_postgres(struct report *report, const char *url, const char *drop_slot,
                    struct fw_error *err);
int doctor_sqlite(struct report *report, const char *url, struct fw_error *err);

#endif

/* Clocks. Code that times out takes the time as a parameter; only loops call these. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

int64_t clock_monotonic_ms(void);
int64_t clock_monotonic_us(void);
int64_t clock_realtime_ms(void); /* since 1970 UTC */

#endif

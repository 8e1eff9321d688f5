/* The close codes that are counted one by one. */
#include "counters.h"

static const uint16_t close_codes[N_CLOSE_CODES - 1] = {
    1000, 1001, 1002, 1007, 1009, 1011, 1012, 4000, 4001, 4003, 4029, 4102, 4103, 4108, 4129,
};

unsigned close_code_index(unsigned code)
{
    unsigned index = 0;
    while (index < N_CLOSE_CODES - 1 && close_codes[index] != code)
        index++;
    return index;
}

unsigned close_code_at(unsigned index)
{
    return index < N_CLOSE_CODES - 1 ? close_codes[index] : 0;
}

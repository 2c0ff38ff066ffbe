#pragma once

// kvq_attend_handler is the function that XLA calls, an XLA_FFI_Handler.
void *kvq_attend_handler(void *call_frame);

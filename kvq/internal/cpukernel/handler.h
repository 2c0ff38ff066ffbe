#pragma once

// The functions that XLA calls: each is an XLA_FFI_Handler.
void *kvq_attend_handler(void *call_frame);
void *kvq_encode_handler(void *call_frame);

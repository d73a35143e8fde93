"""Names that MicroPython has interned in its firmware: what a program calls so takes no RAM of a board.

Of the 1.25 firmware of the virtual board cortex-m4, without builtins, keywords, and the types of its native code.
On a board that lacks one of them it is interned as any other name would be.
"""

NAMES = """
ARRAY AUTO BFINT16 BFINT32 BFINT8 BFUINT16 BFUINT32 BFUINT8 BF_LEN BF_POS BIG_ENDIAN BytesIO CancelledError
DeflateIO EACCES EADDRINUSE EAGAIN EALREADY EBADF ECONNABORTED ECONNREFUSED ECONNRESET EEXIST EHOSTUNREACH
EINPROGRESS EINVAL EIO EISDIR ENOBUFS ENODEV ENOENT ENOMEM ENOTCONN EOPNOTSUPP EPERM ETIMEDOUT FLOAT32 FLOAT64
FileIO FrameBuffer FrameBuffer1 GS2_HMSB GS4_HMSB GS8 GZIP HARD_RESET INT INT16 INT32 INT64 INT8 IOBase
LITTLE_ENDIAN LONG LONGLONG MONO_HLSB MONO_HMSB MONO_VLSB MVLSB NATIVE NoneType OrderedDict POLLERR POLLHUP
POLLIN POLLOUT PTR PWRON_RESET PinBase RAW RGB565 RingIO SHORT Signal StringIO Task TaskQueue TextIOWrapper
UINT UINT16 UINT32 UINT64 UINT8 ULONG ULONGLONG USHORT VOID VfsLfs2 VfsRom ViperTypeError ZLIB a2b_base64
abs_tol acos acosh add addressof aes align alloc_emergency_exception_buf and_ append appendleft args argv
array asin asinh asr atan atan2 atanh b b2a_base64 binascii bl blit buffer buffering bx bytearray_at bytecode
byteorder bytes_at calcsize cancel ceil center chdir choice clear close clz cmath cmp code collect collections
copy copysign coro cos cosh count cpsid cpsie crc32 cryptolib cur_task data decode decrypt deepsleep default
deflate degrees deleter deque difference difference_update digest disable discard doc done dump dumps e
ellipse enable encode encoding encrypt end endswith erf erfc errno errorcode exp expm1 extend fabs factorial
file fill fill_rect find floor flush fmod framebuf freq frexp from_bytes fromhex fromkeys gamma gc get getcwd
getrandbits getter getvalue group hashlib heap_lock heap_unlock heapify heappop heappush heapq hexlify hline
idle ilistdir imag implementation index indices inf insert intersection intersection_update invert io ioctl
ipoll isalpha isclose isdigit isdisjoint isenabled isfinite isinf islower isnan isspace issubset issuperset
isupper items iterable join json kbd_intr keepends key keys label ldexp ldr ldrb ldrex ldrh lgamma libc_ver
lightsleep line listdir little load loads log log10 log2 lookahead lower lsl lsr lstrip machine main math
maxsize mem mem16 mem32 mem8 mem_alloc mem_current mem_free mem_info mem_peak mem_total mkdir mkfs mode modf
modify modules mount mov movt movw movwt mrs mtime name namedtuple nan newline nodename nop off on opt_level
os pack pack_into partition path peek pend_throw ph_key phase pi pixel platform polar poll poly pop popitem
popleft print_exception progsize ps1 ps2 push python_compiler qstr_info r radians randint random randrange rb
rbit re read readblocks readinto readline readlines readonly readsize real rect register rel_tol release
remove rename replace reset reset_cause reverse rfind rindex rmdir rom_ioctl rpartition rsplit rstrip schedule
scroll sdiv search seed seek select send sep separators setdefault setter sha1 sha256 sin single sinh sizeof
sleep sleep_ms sleep_us soft_reset sort split splitlines sqrt stack_use start startswith stat state statvfs
stderr stdin stdout step stop strb strex strh strip struct sub symmetric_difference
symmetric_difference_update sync sys sysname tan tanh tau tell text threshold throw ticks ticks_add ticks_cpu
ticks_diff ticks_ms ticks_us time to_bytes trunc uctypes udiv umount uname unhexlify uniform union unique_id
unlink unpack unpack_from unregister update upper urandom usys value values variant vcmp vcvt_f32_s32
vcvt_s32_f32 version version_info vfs vldr vline vmov vmrs vneg vsqrt vstr wfi write writeblocks
""".split()  # noqa: SIM905 - as a list it is five hundred lines

# Built-in names of any firmware: free for a program that uses none of these by this name.
BUILTINS = """
ArithmeticError EOFError Ellipsis GeneratorExit IndexError KeyError LookupError NameError OverflowError
StopAsyncIteration ZeroDivisionError all bin callable chr classmethod delattr dir divmod enumerate eval exec filter
globals hex id input iter locals next oct ord pow repr reversed round setattr sum zip
""".split()  # noqa: SIM905 - as above

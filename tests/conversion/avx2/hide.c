/* Hides instruction sets from the program that this library is preloaded into, so that it takes older kernels.

   Linux makes CPUID fault in a process that asks for it (arch_prctl, ARCH_SET_CPUID, where the processor can). The
   fault is answered here: the processor's own answer, without the features to hide.

       cc -O2 -shared -fPIC -o hide.so hide.c
       HIDE=vnni|avx512 LD_PRELOAD=./hide.so program

   HIDE=vnni leaves AVX-512 without VNNI and AMX; HIDE=avx512 leaves AVX2 alone. Without CPUID faulting the program ends
   with exit code 77 before it begins. */

#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

/* Leaf 7: AVX-512 F, DQ, IFMA, CD, BW, VL in EBX; VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ in ECX; FP16 in EDX. */
#define EBX_AVX512 (BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31))
#define ECX_AVX512 (BIT(1) | BIT(6) | BIT(12) | BIT(14))
#define ECX_VNNI BIT(11)
#define EDX_AVX512 BIT(23)
#define EDX_AMX (BIT(22) | BIT(24) | BIT(25))
/* Leaf 7.1: AVX-VNNI, AVX512-BF16, AMX-FP16 in EAX; AVX-VNNI-INT8, AMX-COMPLEX, AVX-VNNI-INT16 in EDX. */
#define EAX1_VNNI (BIT(4) | BIT(21))
#define EAX1_AVX512 BIT(5)
#define EDX1_VNNI (BIT(4) | BIT(8) | BIT(10))

static int hides_avx512;

static int fault_on_cpuid(int on) { return (int)syscall(SYS_arch_prctl, ARCH_SET_CPUID, (unsigned long)!on); }

static void answer(int signal_number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    unsigned a = (unsigned)registers[REG_RAX], b = 0, c = (unsigned)registers[REG_RCX], d = 0;
    const unsigned leaf = a, subleaf = c;
    (void)signal_number, (void)info;
    if (code[0] != 0x0f || code[1] != 0xa2) { /* another fault than CPUID's: let it end the program */
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    fault_on_cpuid(0);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    fault_on_cpuid(1);
    if (leaf == 7 && subleaf == 0) {
        b &= ~(hides_avx512 ? EBX_AVX512 : 0);
        c &= ~(ECX_VNNI | (hides_avx512 ? ECX_AVX512 : 0));
        d &= ~(EDX_AMX | (hides_avx512 ? EDX_AVX512 : 0));
    } else if (leaf == 7 && subleaf == 1) {
        a &= ~(EAX1_VNNI | (hides_avx512 ? EAX1_AVX512 : 0));
        d &= ~EDX1_VNNI;
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    const char *what = getenv("HIDE");
    struct sigaction action;
    if (what == NULL) return;
    hides_avx512 = strcmp(what, "avx512") == 0;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    if (sigaction(SIGSEGV, &action, NULL) != 0 || fault_on_cpuid(1) != 0) _exit(77);
}

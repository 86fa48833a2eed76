/* The first program of a machine that tries kernel modules: it loads every file of /modules in turn, and tells on the second serial line
 * what the kernel said: "NAME 0" for one that was loaded, else "NAME ERRNO". Files whose names end in ".packed" are left to the kernel's
 * own decompressor. What is in /before is loaded first: the kernel's own modules, for what it cannot do otherwise.
 *
 * Then it has the shell run /script, if there is one, with the second serial line as output, and tells how that ended: "ran 0" or
 * "ran STATUS". */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* include/uapi/linux/module.h */
#define MODULE_INIT_COMPRESSED_FILE 4

static FILE *told;

static int ends(const char *name, const char *end)
{
	size_t len = strlen(name), end_len = strlen(end);

	return len >= end_len && !strcmp(name + len - end_len, end);
}

/* The newest module is the first line of /proc/modules. */
static void remove_newest(void)
{
	char name[128];
	FILE *modules = fopen("/proc/modules", "r");

	if (modules && fscanf(modules, "%127s", name) == 1)
		syscall(SYS_delete_module, name, O_NONBLOCK);
	if (modules)
		fclose(modules);
}

static int load(const char *dir, const char *name)
{
	char path[512];
	int fd, failed;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	failed = syscall(SYS_finit_module, fd, "", ends(name, ".packed") ? MODULE_INIT_COMPRESSED_FILE : 0) ? errno : 0;
	close(fd);
	return failed;
}

/* How it ended, as waitpid(2) tells. */
static int run_script(void)
{
	char *environment[] = { "PATH=/bin:/sbin:/usr/bin:/usr/sbin", NULL };
	int status = -1;
	pid_t child = fork();

	if (!child) {
		dup2(fileno(told), STDOUT_FILENO);
		dup2(fileno(told), STDERR_FILENO);
		execle("/bin/sh", "sh", "-e", "/script", NULL, environment);
		_exit(127);
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

int main(void)
{
	struct dirent **names;
	struct termios line;
	char enforced = '?';
	FILE *parameter;
	int fd, i, count;

	mount("proc", "/proc", "proc", 0, 0);
	mount("sysfs", "/sys", "sysfs", 0, 0);
	mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
	fd = open("/dev/ttyS1", O_WRONLY | O_NOCTTY);
	if (fd >= 0 && !tcgetattr(fd, &line)) {
		cfmakeraw(&line);
		tcsetattr(fd, TCSANOW, &line);
	}
	told = fdopen(fd, "w");
	if (!told)
		reboot(RB_POWER_OFF);

	parameter = fopen("/sys/module/module/parameters/sig_enforce", "r");
	if (parameter && fscanf(parameter, "%c", &enforced) != 1)
		enforced = '?';
	fprintf(told, "enforced %c\n", enforced);

	count = scandir("/before", &names, is_visible, alphasort);
	for (i = 0; i < count; i++)
		load("/before", names[i]->d_name);
	count = scandir("/modules", &names, is_visible, alphasort);
	for (i = 0; i < count; i++) {
		int failed = load("/modules", names[i]->d_name);

		fprintf(told, "%s %d\n", names[i]->d_name, failed);
		fflush(told);
		if (!failed)
			remove_newest();
	}
	fflush(told);
	if (!access("/script", F_OK))
		fprintf(told, "ran %d\n", run_script());
	fprintf(told, "end\n");
	fflush(told);
	tcdrain(fd);
	reboot(RB_POWER_OFF);
	return 0;
}

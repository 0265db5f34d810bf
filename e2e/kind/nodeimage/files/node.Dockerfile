# A node of kind, on Debian and with the programs that kind's own image has, or trivet's. Debian's units are not
# started; kind's are. systemd does not write values of the whole machine.
FROM trivet-kind/debian
ARG RUNTIME
COPY root/ /
RUN rm -f /etc/systemd/system/*.wants/* \
      /lib/systemd/system/multi-user.target.wants/* \
      /lib/systemd/system/local-fs.target.wants/* \
      /lib/systemd/system/basic.target.wants/* \
      /lib/systemd/system/sockets.target.wants/*udev* \
      /lib/systemd/system/sockets.target.wants/*initctl* \
      /lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
      /usr/lib/sysctl.d/50-pid-max.conf \
      /usr/lib/sysctl.d/99-protect-links.conf && \
    mkdir -p /etc/kubernetes/manifests && \
    ln -sf /usr/lib/systemd/systemd /sbin/init && \
    systemctl enable kubelet.service $RUNTIME.service undo-mount-hacks.service && \
    systemctl mask systemd-binfmt.service && \
    echo ReadKMsg=no >>/etc/systemd/journald.conf
ENV container=docker
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/trivet-entrypoint", "/usr/local/bin/entrypoint", "/sbin/init"]

# The same node with trivet-cri in containerd's place and trivet-node in kubelet's.
FROM trivet-kind/node
COPY root/ /
RUN systemctl disable containerd.service && systemctl enable trivet-cri.service
